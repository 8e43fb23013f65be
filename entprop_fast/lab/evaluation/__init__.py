"""Evaluate robustness: corrupted, natural and attacked test sets, with intervals and sources."""

from entprop_fast.lab.evaluation.attacks import autoattack, pgd
from entprop_fast.lab.evaluation.evaluation_options import EvaluationOptions
from entprop_fast.lab.evaluation.evaluation_result import Evaluation, Row
from entprop_fast.lab.evaluation.protocol import evaluate_model

__all__ = ["Evaluation", "EvaluationOptions", "Row", "autoattack", "evaluate_model", "pgd"]
