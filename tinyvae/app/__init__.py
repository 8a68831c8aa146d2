"""The command line and the folder of a run: options in, calls out.
Everything else is below it; nothing imports it."""
