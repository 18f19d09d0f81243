"""Serves a model to OpenAI's clients; see configs/serve.py."""

from experiments import command, serving

if __name__ == "__main__":
    command.run(serving.work, workdir="runs/serve")
