"""Robust evaluation: corrupted, natural and attacked test sets, with intervals and sources."""

from entprop_fast.evaluation.attacks import autoattack, pgd
from entprop_fast.evaluation.options import EvaluationOptions
from entprop_fast.evaluation.protocol import evaluate_model
from entprop_fast.evaluation.results import Evaluation, Row

__all__ = ["Evaluation", "EvaluationOptions", "Row", "autoattack", "evaluate_model", "pgd"]
