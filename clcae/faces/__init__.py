"""Faces in photographs: landmarks, the crops that networks were trained on, and the way back."""
