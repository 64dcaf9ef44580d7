"""Devices: peak speed, memory and price of an accelerator."""

from __future__ import annotations

from pydantic import Field

from models.spec import Config


class Device(Config):
    """The accelerator of a node. Peaks are dense; 16-bit is fp16 where the device has no bf16."""

    name: str = Field("custom", description="what outputs call it")
    bf16_tflops: float = Field(ge=1e-6, description="peak 16-bit TFLOP/s")
    fp32_tflops: float = Field(ge=1e-6, description="peak fp32 TFLOP/s")
    memory_gib: float = Field(gt=0, description="device memory in GiB")
    utilisation: float = Field(ge=1e-6, le=1, description="share of the peak that training reaches")
    spot_usd_per_hour: float | None = Field(None, ge=0, description="price of one device where it can be taken away")
    on_demand_usd_per_hour: float | None = Field(None, ge=0, description="price of one device that stays")
    prices_as_of: str | None = Field(None, description="month of the prices")
    description: str = Field("", description="in words")
    source: str = Field("", description="source of the figures")

    def flops_per_second(self, precision: str) -> float:
        """Speed that training reaches in the given number format."""
        return self.peak_flops_per_second(precision) * self.utilisation

    def peak_flops_per_second(self, precision: str) -> float:
        """Peak speed in the given number format."""
        return (self.fp32_tflops if precision == "fp32" else self.bf16_tflops) * 1e12
