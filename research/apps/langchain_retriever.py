"""A retriever here as one of LangChain's, so that its chains read our stores."""

from typing import Any

from .retrieval.retriever import Retriever


def as_langchain(retriever: Retriever, k: int = 5) -> Any:
    """A `langchain_core.retrievers.BaseRetriever`: the text of each of k chunks, with its other fields as metadata."""
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    class StoreRetriever(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [
                Document(
                    id=chunk.id,
                    page_content=chunk.text,
                    metadata={
                        **chunk.metadata,
                        "source": chunk.source,
                        "title": chunk.title,
                        "heading": chunk.heading,
                        "start": chunk.start,
                        "end": chunk.end,
                        "score": score,
                    },
                )
                for chunk, score in retriever(query, k)
            ]

    return StoreRetriever()
