"""Running a run: the ledger and lease in S3, observing, acting, the loop, and reading a run back. Effects, no rules."""
