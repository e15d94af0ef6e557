"""The name that fastworker 0.3.0 had for `fastworker.integrations`."""
