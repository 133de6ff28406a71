"""The models of MLPerf Storage, as numbers: what a step reads, and for how long it computes.

From the workload files of the benchmark (github.com/mlcommons/storage, configs/dlio/workload), per
accelerator: `unet3d_h100.yaml`, `resnet50_h100.yaml` and `cosmoflow_h100.yaml` at v1.0 and v2.0, and
`retinanet_b200.yaml`, which replaced ResNet-50 later. Keys there: record_length_bytes,
record_length_bytes_stdev, num_samples_per_file, batch_size, read_threads, computation_time, metric.au.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Model:
    """One model on one accelerator."""

    name: str
    record_bytes: int
    record_stdev_bytes: int
    records_per_file: int
    batch: int
    """Records of a step."""
    step_s: float
    """Computing of a step."""
    workers: int
    """Threads that read."""
    au: float
    """What MLPerf Storage demands of the utilisation."""

    @property
    def bytes_per_s(self) -> float:
        """What one accelerator that never waits takes."""
        return self.batch * self.record_bytes / self.step_s

    def scaled(self, divisor: int) -> "Model":
        """Records that much smaller and steps that much shorter: the same bytes a second."""
        return replace(
            self,
            record_bytes=self.record_bytes // divisor,
            record_stdev_bytes=self.record_stdev_bytes // divisor,
            step_s=self.step_s / divisor,
        )

    def in_files_of(self, records: int, *, batches: int) -> "Model":
        """The same bytes a second from files of so many records and batches."""
        batch = records // batches
        step_s = self.step_s * batch / self.batch
        return replace(self, records_per_file=records, batch=batch, step_s=step_s)


UNET3D = Model("unet3d", 146_600_628, 68_341_808, 1, 7, 0.323, 4, 0.90)
RESNET50 = Model("resnet50", 114_660, 0, 1251, 400, 0.224, 8, 0.90)
COSMOFLOW = Model("cosmoflow", 2_828_486, 71_311, 1, 1, 0.0035, 4, 0.70)
RETINANET = Model("retinanet", 322_957, 0, 1, 24, 0.04755, 8, 0.85)
