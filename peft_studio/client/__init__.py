"""
The Python client: ``Client`` blocks, ``AsyncClient`` is awaited; both know the same operations.

    with Client("http://127.0.0.1:8000", key) as studio:
        job = studio.create_job({"base_model": "demo/model", "dataset_path": "demo/support.jsonl"})
        for event in studio.follow(job.job_id):
            print(event)

An operation is described once (``jobs.py``, ``datasets.py``, …: method, path, body, and how the answer is read) and
sent by either client (``blocking.py``, ``asynchronous.py``), again where that helps (``retrying.py``).
"""

from peft_studio.client.asynchronous import AsyncClient
from peft_studio.client.blocking import Client

__all__ = ["AsyncClient", "Client"]
