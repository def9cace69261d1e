"""The command line `orch`: one file per command, loaded when that is wanted. Parses, asks, shows; decides nothing."""
