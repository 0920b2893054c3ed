"""What training minimises: pure functions, and a weighted sum of named terms."""

from clcae.losses.adversarial import logistic_discriminator, logistic_generator, r1_penalty
from clcae.losses.contrastive import info_nce, retrieval_accuracy
from clcae.losses.inversion import alignment_term, feature_term, reconstruction_terms
from clcae.losses.margin import AngularMargin
from clcae.losses.weighted import weighted_sum

__all__ = [
    "AngularMargin",
    "alignment_term",
    "feature_term",
    "info_nce",
    "logistic_discriminator",
    "logistic_generator",
    "r1_penalty",
    "reconstruction_terms",
    "retrieval_accuracy",
    "weighted_sum",
]
