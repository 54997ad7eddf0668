"""A benchmark of run_bots.py beside the usual ways to run several bots. Start it with: python -m tests.benchmark"""
