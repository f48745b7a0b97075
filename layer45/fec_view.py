"""How a plan for forward error correction is shown."""

from layer45.fec_plan import Plan, Wish, percent
from layer45.output import print_table


def show_plan(wish: Wish, plan: Plan) -> None:
    """What to configure, what to expect, and the line for a policy."""
    rows = [
        ("source symbols (k)", str(plan.source_symbols)),
        ("repair symbols (m)", str(plan.repair_symbols)),
        ("interleave", str(plan.interleave)),
        ("deadline", f"{plan.deadline_ms} ms"),
        ("overhead", percent(plan.overhead)),
        ("residual loss", f"{percent(plan.residual_loss)} of {percent(wish.loss)}"),
    ]
    if wish.burst:
        rows.append(("if losses were independent", percent(plan.residual_loss_independent)))
    print_table(("PLAN", ""), rows)
    print(f"in a policy: chain = [ {plan.chain} ]")
