"""The command line: options, progress, terminal output. Each command is options and one call of the library."""
