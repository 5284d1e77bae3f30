"""Many runs: sweeps over settings, reports that compare finished runs, and the paper's tables and figures."""
