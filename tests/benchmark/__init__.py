"""What many bots cost, beside other ways to run them. Start it with: python -m tests.benchmark"""
