"""main.py with the model `conftest.Small`, steered by the test that starts it.

    python driven_training.py BEGINS FLAGS...

Waits for a line on its stdin after each line of the console that starts with BEGINS, if that is not
empty. With BEGINS "and evaluate" it evaluates after training instead.
"""

import select
import sys

import conftest

from hourglass_jax import evaluate, main, models, train

models.build = conftest.create_small
main.PATIENCE["heartbeat_timeout_seconds"] = 10  # a test waits for it
begins, say, plain_train = sys.argv.pop(1), train.say, train.train


def say_and_wait(text):
    say(text)
    if begins and text.startswith(begins):
        # In a read that blocks, a signal that came just before it would wait as well.
        while not select.select([sys.stdin], [], [], 0.1)[0]:
            pass
        sys.stdin.readline()


def train_and_evaluate(config, workdir, **options):
    plain_train(config, workdir, **options)
    evaluate.evaluate(config, workdir, workdir)


train.say = say_and_wait
if begins == "and evaluate":
    train.train = train_and_evaluate
main.run()
