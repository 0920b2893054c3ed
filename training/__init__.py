"""Training: the step loop and what surrounds it, and the tasks that it runs.

``run`` builds a configured run and drives its stages, ``trainer`` holds the one step loop, ``task``
the interface between the loop and what is learnt. The trainer knows no concrete task.
"""
