"""Ingests a folder in a process of its own, which a test kills: `python -m tests.apps.retrieval.ingesting ...`."""

import os
import signal
import sys

from research.apps.retrieval.chunks import Chunker
from research.apps.retrieval.files import folder
from research.apps.retrieval.ingest import ingest
from research.apps.retrieval.lance import LanceStore
from research.apps.retrieval.sqlite import SQLiteStore
from tests.apps.retrieval.hashed import Hashed

KINDS = {"sqlite": SQLiteStore, "lance": LanceStore}
CHUNKER = Chunker("tokens", size=12, overlap=3)


class Telling(Hashed):
    """Says when a batch is embedded: the one before it is stored then, and this one is next."""

    def __call__(self, texts):
        found = super().__call__(texts)
        print(self.seen, flush=True)
        return found


class Dying(SQLiteStore):
    """Ends without warning in the middle of its second transaction, some documents of which are written."""

    written = 0

    @staticmethod
    def _delete(db, source):
        SQLiteStore._delete(db, source)
        Dying.written += 1
        if Dying.written == 25:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    kind, path, documents = sys.argv[1:]
    embed = Telling()
    store = (KINDS | {"dying": Dying})[kind](path, embedder=embed.name, width=embed.width)
    ingest(folder(documents), store, embed, CHUNKER, batch=60)
