"""main.py with the model `conftest.Small`, steered by the test that starts it.

    python driven_training.py BEGINS FLAGS...

Waits for a line on its stdin after each line of the console that starts with BEGINS, if that is not
empty.
"""

import select
import sys

import conftest

from hourglass_jax import main, models, train

models.build = conftest.create_small
begins, say = sys.argv.pop(1), train.say


def say_and_wait(text):
    say(text)
    if begins and text.startswith(begins):
        # In a read that blocks, a signal that came just before it would wait as well.
        while not select.select([sys.stdin], [], [], 0.1)[0]:
            pass
        sys.stdin.readline()


train.say = say_and_wait
main.run()
