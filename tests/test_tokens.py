"""A token is taken out of all that is printed, by its form; a record of the log stays as it is."""

from __future__ import annotations

import textwrap

import pytest

from .local_discord import Account, LocalDiscord, faults
from .local_discord.world import make_token
from .program import EXTENSION, Program, until, write

SECRET = "made-up-secret"


async def run_code(program: Program, discord: LocalDiscord, code: str, extra: str = "") -> Account:
    """Run one bot that runs this code as it loads, and stop it."""
    bot = discord.add_bot("one")
    method = "async def cog_load(self):\n" + textwrap.indent(textwrap.dedent(code), "    ")
    write(program, "one.py", EXTENSION % textwrap.indent(method, "    "))
    program.write_env(bot, extra=f"DISCORD_BOT_EXTENSIONS1=one\n{extra}")
    await program.start()
    await program.logged("1 of 1 bots are ready")
    assert await program.stop() == 0
    return bot


WAYS = {
    "print": "print('it is', token)",
    "stdout.write": "sys.stdout.write(f'it is {token}\\n')",
    "stderr.write": "sys.stderr.write(f'it is {token}\\n')",
    "stdout.buffer": "sys.stdout.buffer.write(f'it is {token}\\n'.encode())",
    "stderr.buffer": "sys.stderr.buffer.write(f'it is {token}\\n'.encode())",
    "the first stdout": "print('it is', token, file=sys.__stdout__)",
    "the first stderr": "print('it is', token, file=sys.__stderr__)",
    "writelines": "sys.stdout.writelines(['it is ', token, '\\n'])",
    "print without an end": "print('it is ', end=''); print(token, end=''); print()",
    "a text of 20,000 characters": "print('it is' + 'x' * 20_000, token, 'x' * 20_000)",
    "an own handler": """
        log.addHandler(logging.StreamHandler(sys.stdout))
        log.info('it is %s', token)
        """,
    "a traceback": "log.error('it is', exc_info=ValueError(token))",
    "warnings": "import warnings; warnings.warn('it is ' + token)",
    "a path": "print(f'it is https://discord.com/api?token={token}&x=1')",
    "a repr": "print('it is', repr({'Authorization': 'Bot ' + token}))",
}


async def test_a_token_is_masked_whichever_way_it_is_printed(
    program: Program, discord: LocalDiscord
) -> None:
    code = "import sys\ntoken = self.bot.http.token\n"
    for number, way in enumerate(WAYS.values(), 1):
        code += textwrap.dedent(way).replace("it is", f"way {number} is") + "\n"
    await run_code(program, discord, code)
    output = program.stdout + program.stderr
    assert SECRET not in output
    for number, way in enumerate(WAYS, 1):
        assert f"way {number} is" in output, way
    assert output.count("[token of one]") >= len(WAYS)


UNKNOWN = {
    "of no bot here": "",
    "by another name of the env file": f"MUSIC={make_token(10**17 + 5)}",
}


@pytest.mark.parametrize("which", UNKNOWN)
async def test_a_token_is_masked_by_its_form(
    which: str, program: Program, discord: LocalDiscord
) -> None:
    token = make_token(10**17 + 5)
    await run_code(program, discord, f"print('it is', {token!r})", UNKNOWN[which])
    assert "it is [" in program.stdout
    assert SECRET not in program.stdout


async def test_a_token_of_an_odd_form_is_masked_too(
    program: Program, discord: LocalDiscord
) -> None:
    odd = discord.add_bot("odd", token="an-odd-looking-token")
    write(program, "one.py", f"async def setup(bot):\n    print('it is', {odd.token!r})\n")
    program.write_env(odd, extra="DISCORD_BOT_EXTENSIONS1=one")
    await program.start()
    await program.logged("1 of 1 bots are ready")
    assert await program.stop() == 0
    assert program.stdout == "it is [token of odd]\n"


async def test_a_handler_of_the_bots_own_gets_the_record_as_it_was_logged(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        class Own(logging.Handler):
            def emit(self, record):
                if record.name == "extension":
                    print("own:", record.msg, record.args, record.getMessage())

        log.addHandler(Own())
        logging.getLogger().addHandler(Own())
        log.info("hello %s", "you")
        log.info("100 %")
        """
    await run_code(program, discord, code)
    own = [line for line in program.stdout.splitlines() if line.startswith("own:")]
    assert own == ["own: hello %s ('you',) hello you"] * 2 + ["own: 100 % () 100 %"] * 2
    assert "[one] hello you" in program.stderr
    assert "[one] 100 %" in program.stderr


async def test_a_message_that_cannot_be_shown_does_not_fail_in_the_bots_code(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        class Bad:
            def __str__(self):
                raise ValueError("no words")
            __repr__ = __str__

        log.info(Bad())
        log.info("it is %s", Bad())
        log.info("too %s many %s", 1)
        print("went on")
        """
    await run_code(program, discord, code)
    assert program.stdout == "went on\n"


async def test_a_line_costs_next_to_nothing_with_a_thousand_tokens(
    program: Program, discord: LocalDiscord
) -> None:
    code = """
        text = "no token is here; " * 110
        began = time.thread_time()
        for _ in range(200):
            print(text)
        print("each", (time.thread_time() - began) / 200)
        """
    tokens = (f"DISCORD_BOT_TOKEN{n}={make_token(10**17 + n)}" for n in range(10, 1010))
    bot = discord.add_bot("one")
    method = "async def cog_load(self):\n" + textwrap.indent(textwrap.dedent(code), "    ")
    write(program, "one.py", EXTENSION % textwrap.indent(method, "    "))
    program.write_env(bot, extra="\n".join(["DISCORD_BOT_EXTENSIONS1=one", *tokens]))
    await program.start("--only", "1")
    await program.logged("1 of 1 bots are ready")
    assert await program.stop() == 0
    assert float(program.stdout.split("each ")[1]) < 0.0003


async def test_a_block_that_says_how_long_it_lasts_lasts_so_long(
    program: Program, discord: LocalDiscord
) -> None:
    bot = discord.add_bot("one")
    bot.fail("GET /users/@me", faults.cloudflare_block(1.5), times=1)  # type: ignore[arg-type]
    program.write_env(bot)
    await program.start()
    await program.logged("blocks this IP address (429). All bots wait 1.5 s.")
    await until(lambda: bot.ready, timeout=10)
    assert await program.stop() == 0
