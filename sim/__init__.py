"""Simulation: simulators, memory models, runs and their comparison."""
