"""Tests of the benchmarks that compute what they print."""
