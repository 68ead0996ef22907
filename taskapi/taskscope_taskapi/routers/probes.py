"""Whether this instance lives, and whether it can serve."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Response

from taskscope_taskapi.database import DatabaseUnavailable
from taskscope_taskapi.envelope import Envelope, answer
from taskscope_taskapi.schemas import Health
from taskscope_taskapi.service import Running

__all__ = ["router"]

router = APIRouter(tags=["probes"])


@router.get("/livez", response_model=Envelope[Health])
async def livez() -> Response:
    """The process answers; nothing else is asked, so a lost database does not restart it."""
    return answer(Health(status="ok"))


@router.get("/readyz", response_model=Envelope[Health])
async def readyz(service: Running) -> Response:
    """Whether the database answers. Only names are told, never addresses."""
    try:
        await service.database.ping()
    except DatabaseUnavailable:
        return answer(
            Health(status="unavailable", checks={"database": "unavailable"}),
            status=HTTPStatus.SERVICE_UNAVAILABLE,
            headers={"Retry-After": "1"},
        )
    return answer(Health(status="ok", checks={"database": "ok"}))
