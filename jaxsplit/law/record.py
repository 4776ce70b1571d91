"""The schema of law.json; see results.record."""

from __future__ import annotations

from jaxsplit.law.surface import POINTS

_SCORE = {"mre": float, "max": float, "bias": float, "differences": (float, None),
          "num_points": int, "rule": str, "distance": float}
_MEMBER = {
    "form": str, "form_hash": (str, None), "log": bool, "repeats": bool, "offsets": [str], "fix": {"*": float},
    "tie": {"*": str}, "theta": [float], "samples": [[float]], "weight": float,
    "layout": {"domains": [str], "index": [[int]], "units": [float], "scale": float, "offsets": [float],
               "unique_tokens": [(float, None)], "shares": [float], "rest_tokens": [(float, None)]}}
LAW = {
    "form": str, "objective": {"name": str, "delta": (float, None), "space": str}, "parameters": {"*": float},
    "objective_value": float, "num_points": int, "r2": float, "r2_within_domains": float,
    "held_out": ({**_SCORE, "measured": [float], "predicted": [float], "others": [_SCORE]}, None),
    "intervals": {"*": [(float, None)]}, "profiles": {"*": {"value": [float], "deviance": [float], "interval": [float]}},
    "candidates": [{"form": str, "parameters": {"*": float}, "objective_value": float,
                    "held_out": ({**_SCORE, "others": [_SCORE]}, None)}],
    "diagnostics": {"starts": int, "starts_at_optimum": float, "starts_alike": float, "gradient": float,
                    "condition": (float, None), "at_bounds": [str], "points_per_constant": float, "skipped_forms": {"*": str},
                    "warnings": [str]},
    "data": {"ranges": {name: [float] for name in ("params", "seed_tokens", "expert_tokens", "loss", "tokens")},
             "levels": {name: {"*": int} for name in ("seed_tokens", "expert_tokens")}},
    "settings": {"*": (str, float, bool, None)}, "residuals": [float],
    "members": [_MEMBER],
    "surface": ({"points": {name: [float] for name in POINTS},
                 "forms": [{"member": _MEMBER, "covariance": [[float]], "scales": [float],
                           "drawn_scales": [[float]], "drawn": [[float]]}]}, None),
}
