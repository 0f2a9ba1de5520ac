"""CapFace runs wherever a stock ControlNet does, and each part of a frame gets its part of the head."""

import pytest

from capface.tests.neighbours.cases import CASES, NOT_LOADED


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_beside(results, case):
    found, log = results(case.group)
    assert case.name in found, f"the process ended before this case:\n{log}"
    row = found[case.name]
    if "missing" in row:
        pytest.skip(row["missing"])
    if row["capface"] == NOT_LOADED:
        pytest.skip(f"{case.pack} {NOT_LOADED}")
    assert row["capface"] == "ok", f"{row['capface']} (with a stock ControlNet: {row['stock']})\n{row['trace']}\n{log}"
    if case.stock:
        assert row["stock"] == "ok", f"the case itself does not work: {row['stock']}\n{row['trace']}"
    if case.tolerance is not None:
        assert row["error"] <= case.tolerance, f"relative errors of the parts' heads: {row.get('errors', row['error'])}"
