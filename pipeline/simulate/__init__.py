"""Simulated nights of alerts: populations, light curves, stamps and packets, as pure functions of a seed."""
