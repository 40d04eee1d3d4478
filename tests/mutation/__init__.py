"""Mutations of the code, to see whether the tests notice: run by hand, `make mutants`."""
