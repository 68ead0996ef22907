"""Who the caller is."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy import select

from taskscope_taskapi.envelope import Envelope, entity_tag, read
from taskscope_taskapi.models import User
from taskscope_taskapi.problems import unauthorized
from taskscope_taskapi.schemas import UserView
from taskscope_taskapi.service import Running, StrictRoute, UserId

__all__ = ["router"]

router = APIRouter(prefix="/users", tags=["users"], route_class=StrictRoute)


@router.get("/me", response_model=Envelope[UserView])
async def me(request: Request, user_id: UserId, service: Running) -> Response:
    """The caller's own account."""
    async with service.database.reading() as session:
        user = await session.scalar(select(User).where(User.id == user_id))
    if user is None:
        raise unauthorized("The account of this token is gone.")
    view = UserView.model_validate(user)
    return read(request, view, tag=entity_tag(view))
