"""Policies draw plans: which ops each image gets.

`create_policy` creates one from a specification, `policy_from_views` from the settings `views` of a recipe.
"""

from kdaug.views.policies.augmix import AugMix
from kdaug.views.policies.composition import Policy, Sequential
from kdaug.views.policies.files import read_policy_file
from kdaug.views.policies.magnitude_factors import (
    MagnitudeFactors,
    factors_from_entropy,
    pin_factors,
    read_factors,
    write_factors,
)
from kdaug.views.policies.pba import PopulationBasedAugmentation
from kdaug.views.policies.randaugment import RandAugment
from kdaug.views.policies.spec import (
    create_policy,
    follows_epoch,
    pin_policy_files,
    policy_from_views,
    spec_with_magnitude,
)
from kdaug.views.policies.standard import CIFAR_MEAN, Cutout, Flip, NoPolicy, PadCrop, RandomErasing
from kdaug.views.policies.sub_policies import SubPolicies
from kdaug.views.policies.timm_randaugment import TimmRandAugment
from kdaug.views.policies.trivialaugment import TrivialAugment

__all__ = [
    "CIFAR_MEAN",
    "AugMix",
    "Cutout",
    "Flip",
    "MagnitudeFactors",
    "NoPolicy",
    "PadCrop",
    "Policy",
    "PopulationBasedAugmentation",
    "RandAugment",
    "RandomErasing",
    "Sequential",
    "SubPolicies",
    "TimmRandAugment",
    "TrivialAugment",
    "create_policy",
    "factors_from_entropy",
    "follows_epoch",
    "pin_factors",
    "pin_policy_files",
    "policy_from_views",
    "read_factors",
    "read_policy_file",
    "spec_with_magnitude",
    "write_factors",
]
