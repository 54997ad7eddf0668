TOKEN = "paste your token here"
PREFIX = "c!"
GREETING = "hello from the config"
