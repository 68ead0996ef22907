"""The shop as a service: `uvicorn shop.app:create_app --factory`, then http://127.0.0.1:8000/metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from shop.catalogue import CATALOGUE, ORDERS, PACKING, PACKING_DURATION, STOCK
from taskscope import Settings, get_logger, in_flight, instrument, timed

log = get_logger(__name__)


class Order(BaseModel):
    article: str
    payment: Literal["card", "invoice"]


class Store:
    """How many pieces are left, and who waits for that to change."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self._changed = asyncio.Condition()

    async def take(self) -> bool:
        """One piece less; False where there is none."""
        async with self._changed:
            if self.pieces == 0:
                return False
            self.pieces -= 1
            self._changed.notify_all()
            return True

    async def changes(self) -> AsyncIterator[int]:
        """How many pieces are left, now and after each change, until there are none."""
        left = self.pieces
        yield left
        while left:
            async with self._changed:
                while self.pieces == left:
                    await self._changed.wait()
                left = self.pieces
            yield left


# Declared before there is any app: the running one is found at each call.
@timed(PACKING_DURATION)
@in_flight(PACKING)
async def pack(order: Order) -> None:
    """The order is in a box. It runs in the background, when the customer has the answer already."""
    await asyncio.sleep(0.01)
    if order.article == "fragile":
        raise ValueError("it broke")
    log.info("order packed", article=order.article)


def create_app(*, pieces: int = 100, settings: Settings | None = None) -> FastAPI:
    """The shop with that many pieces in its store; settings are read from the environment by default."""
    app = FastAPI(title="Shop")
    store = Store(pieces)
    telemetry = instrument(
        app,
        service_name="shop",
        service_version="1.0.0",
        catalogue=CATALOGUE,
        settings=settings,
    )
    orders = telemetry.counter(ORDERS)
    telemetry.gauge(STOCK).follow(lambda: store.pieces)

    @app.post("/orders", status_code=201)
    async def place(order: Order, background: BackgroundTasks) -> Order:
        if not await store.take():
            raise HTTPException(409, "sold out")
        orders.inc(payment=order.payment)
        log.info("order placed", payment=order.payment)
        background.add_task(pack, order)
        return order

    @app.get("/stock/events")
    async def watch() -> StreamingResponse:
        events = (f"data: {left}\n\n" async for left in store.changes())
        return StreamingResponse(events, media_type="text/event-stream")

    return app
