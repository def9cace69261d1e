"""The experiments that come with `orch`, by name. Data only; `orch launch NAME` looks here first."""
