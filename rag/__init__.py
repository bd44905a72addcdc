"""
Retrieval: documents become versioned indexes, queries become passages.

    load.load → build.plan → build.carry_out       files → documents → an index on this machine
    open_retriever → retrieve, best_sentences      an index of the registry → passages for a query

Importing this package loads neither NumPy nor a plug-in.
"""

from rag.documents import Chunk, Document, Passage
from rag.retrieve import Retriever, open_retriever
from rag.settings import RagSettings

__all__ = ["Chunk", "Document", "Passage", "RagSettings", "Retriever", "open_retriever"]
