"""The name of the CPU, in the words of /proc/cpuinfo."""

from pathlib import Path

from kogpt.common.cores import cpu_name


def test_the_name_of_the_cpu(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9B14\nprocessor\t: 1\nmodel name\t: AMD EPYC 9B14\n")
    assert cpu_name(info) == "AMD EPYC 9B14"
    assert cpu_name(tmp_path / "missing") != "", "None or a name where the system does not say"
