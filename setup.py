"""Wires the native core into setuptools; everything else is in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["src/bsipatch/_core/build.py:ffibuilder"])
