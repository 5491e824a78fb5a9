"""The systems of the report trained, scored and selected on real tiles: what docs/findings.md is made from."""
