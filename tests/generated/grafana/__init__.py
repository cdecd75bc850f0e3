"""Grafana's dashboards, written with its SDK."""
