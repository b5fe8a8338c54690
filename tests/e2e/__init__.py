"""Whole journeys through the command line."""
