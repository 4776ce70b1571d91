"""The split law: loss as a function of model size N, seed tokens D and expert tokens D', fitted to measured cells.

    cells = read_cells("cells.csv")
    law = fit_law(cells, form="auto")
    plan = plan_split(law, params=3e6, budget_tokens=2e8, num_domains=5)

Stands alone: arrays in, dataclasses out; knows nothing of training.
"""

from jaxsplit.law.cells import Cells
from jaxsplit.law.design import check_plan
from jaxsplit.law.fit import check_fit, fit_law
from jaxsplit.law.law import Law, load_law
from jaxsplit.law.optimal import Optimum, compute_optimal
from jaxsplit.law.plan import PlanSettings, plan_split
from jaxsplit.law.reading import read_cells
from jaxsplit.law.settings import FitSettings
from jaxsplit.results.plan import Plan, load_plan

__all__ = ["Cells", "FitSettings", "Law", "Optimum", "Plan", "PlanSettings", "check_fit", "check_plan", "compute_optimal",
           "fit_law", "load_law", "load_plan", "plan_split", "read_cells"]
