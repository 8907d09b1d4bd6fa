"""Loads plugins and keeps what they registered; each plugin is on its own, none can disturb another."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import pluggy

from lbcore import NAME
from lbcore.errors import UsageError
from lbcore.events import RunFinished, RunStarted, StageFinished
from lbcore.plugins.checks import check_hookimpl, check_registrations
from lbcore.plugins.hookspec import LbSpecs
from lbcore.plugins.listing import Plugin, Provided, Row, missing_error
from lbcore.plugins.types import (
    CommandPlugin,
    DetectorPlugin,
    ExecutorPlugin,
    ExtrasPlugin,
    Registration,
    SnapshotterPlugin,
    TransferPlugin,
    VerifierPlugin,
)

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Registration)

KINDS: dict[str, type[Registration]] = {
    "snapshotter": SnapshotterPlugin,
    "detector": DetectorPlugin,
    "transfer": TransferPlugin,
    "verifier": VerifierPlugin,
    "executor": ExecutorPlugin,
    "extra": ExtrasPlugin,
    "command": CommandPlugin,
}
"""Each kind of thing is registered by the hook ``lb_register_<kind>s``."""

EVENTS = ("lb_run_started", "lb_stage_finished", "lb_run_finished")


class PluginClashError(UsageError):
    """Two plugins claim one name; lb does not choose between them."""


class Plugins:
    """The plugins of one process, and the things they provide."""

    def __init__(self, *, load: bool = True, disabled: Iterable[str] = (), own_commands: Collection[str] = ()) -> None:
        """Load every entry point of the group ``lbcore``, unless ``load`` is False.

        ``disabled`` holds names of entry points that are not even imported, ``own_commands`` those of lb's commands.

        :raises PluginClashError: when two plugins, or two things of the same kind, have one name.
        """
        self._manager = pluggy.PluginManager(NAME)
        self._manager.add_hookspecs(LbSpecs)
        self._disabled = frozenset(disabled)
        self._own_commands = own_commands
        self._plugins: dict[str, Plugin] = {}
        self._provided: dict[tuple[str, str], Provided] = {}
        self._broken: list[tuple[Plugin, str]] = []
        self._blocked: list[Plugin] = []
        if load:
            for point in sorted(set(entry_points(group=NAME)), key=lambda point: (point.name, point.value)):
                self._load(point)

    def register(self, plugin: object, name: str, distribution: str = "(test)", version: str = "") -> None:
        """Register a module or an object that has hooks.

        :raises PluginClashError: when its name, or the name of a thing it provides, is taken.
        :raises Exception: whatever is wrong with it; it is not registered then.
        """
        who = Plugin(name=name, distribution=distribution, version=version)
        if name in self._disabled:
            self._blocked.append(who)
            return
        if name in self._plugins:
            raise PluginClashError(
                f"two plugins are named '{name}': one of {self._plugins[name]}, one of {who}; uninstall one"
            )
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
            for hook in self._manager.hook.__dict__:
                for impl in self._impls(hook, name):
                    check_hookimpl(impl, hook)
            provided: dict[tuple[str, str], Provided] = {}
            for thing in self._call_registrations(who):
                key = (thing.kind, thing.registration.name)
                if thing.kind == "command" and key[1] in self._own_commands:
                    raise PluginClashError(
                        f"plugin '{name}' ({who}) provides a command '{key[1]}', which lb has itself; uninstall it, or "
                        f"leave it out with --disable {name}"
                    )
                first = self._provided.get(key) or provided.get(key)
                if first is not None:
                    raise PluginClashError(
                        f"two plugins provide a {key[0]} '{key[1]}': '{first.plugin.name}' ({first.plugin}) "
                        f"and '{name}' ({who}); uninstall one, or leave it out with --disable NAME"
                    )
                provided[key] = thing
        except BaseException:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            raise
        self._plugins[name] = who
        self._provided.update(provided)

    def _load(self, point: EntryPoint) -> None:
        distribution = point.dist.name if point.dist else "(unknown)"
        version = point.dist.version if point.dist else ""
        who = Plugin(name=point.name, distribution=distribution, version=version)
        if point.name in self._disabled:
            self._blocked.append(who)
            return
        try:
            self.register(point.load(), point.name, distribution, version)
        except PluginClashError:
            raise
        except (Exception, SystemExit) as exc:
            # The border to foreign code: whatever it raises, the other plugins must work.
            error = f"{type(exc).__name__}: {exc}"
            logger.warning("plugin '%s' of %s failed to load: %s", point.name, who, error)
            logger.debug("plugin '%s'", point.name, exc_info=True)
            self._broken.append((who, error))

    def _impls(self, hook: str, plugin: str | None = None) -> list[pluggy.HookImpl]:
        """The implementations of a hook in the order of registration; ``plugin`` limits them to one."""
        caller = getattr(self._manager.hook, hook)
        return [impl for impl in caller.get_hookimpls() if plugin in (None, impl.plugin_name)]

    def _call_registrations(self, plugin: Plugin) -> Iterator[Provided]:
        for kind, wanted in KINDS.items():
            hook = f"lb_register_{kind}s"
            for impl in self._impls(hook, plugin.name):
                for registration in check_registrations(impl.function(), wanted, hook):
                    yield Provided(kind=kind, registration=registration, plugin=plugin)

    def _of_kind(self, wanted: type[R]) -> dict[str, R]:
        things = (thing.registration for thing in self._provided.values())
        return {thing.name: thing for thing in things if isinstance(thing, wanted)}

    def snapshotters(self) -> dict[str, SnapshotterPlugin]:
        """Snapshotters by name."""
        return self._of_kind(SnapshotterPlugin)

    def detectors(self) -> dict[str, DetectorPlugin]:
        """Detectors by name."""
        return self._of_kind(DetectorPlugin)

    def transfers(self) -> dict[str, TransferPlugin]:
        """Transfers by name."""
        return self._of_kind(TransferPlugin)

    def verifiers(self) -> dict[str, VerifierPlugin]:
        """Verifiers by name."""
        return self._of_kind(VerifierPlugin)

    def executors(self) -> dict[str, ExecutorPlugin]:
        """Executors by name."""
        return self._of_kind(ExecutorPlugin)

    def extras(self) -> dict[str, ExtrasPlugin]:
        """Keepers of extras by name. A job uses all that apply to its source."""
        return self._of_kind(ExtrasPlugin)

    def commands(self) -> dict[str, CommandPlugin]:
        """Commands by name."""
        return self._of_kind(CommandPlugin)

    def provided(self) -> list[Provided]:
        """Everything that is registered, with the plugin it came from."""
        return list(self._provided.values())

    def missing(self, kind: str, name: str) -> UsageError:
        """The error for a thing that is not there: which package to install, or why a plugin did not load."""
        known = [other for other_kind, other in self._provided if other_kind == kind]
        return missing_error(kind, name, known, self._broken, self._blocked)

    def listing(self) -> list[Row]:
        """A row for each thing, for each plugin that listens to events, and for each one not loaded."""
        rows = [
            _row(thing.plugin, thing.registration.name, kind=thing.kind, summary=thing.registration.summary)
            for thing in self._provided.values()
        ]
        for name, plugin in self._plugins.items():
            heard = [hook for hook in EVENTS if self._impls(hook, name)]
            if heard:
                rows.append(_row(plugin, name, kind="events", summary=", ".join(heard)))
            elif not any(row.plugin == name for row in rows):
                rows.append(_row(plugin, name, summary="provides nothing"))
        rows += [_row(plugin, plugin.name, state="broken", error=error) for plugin, error in self._broken]
        rows += [_row(plugin, plugin.name, state="disabled") for plugin in self._blocked]
        return sorted(rows, key=lambda row: (row.kind, row.name, row.plugin))

    def run_started(self, event: RunStarted) -> None:
        """Tell every plugin that a run began or goes on."""
        self._tell("lb_run_started", event)

    def stage_finished(self, event: StageFinished) -> None:
        """Tell every plugin that a stage is done."""
        self._tell("lb_stage_finished", event)

    def run_finished(self, event: RunFinished) -> None:
        """Tell every plugin that a run ended."""
        self._tell("lb_run_finished", event)

    def _tell(self, hook: str, event: object) -> None:
        for impl in self._impls(hook):
            try:
                impl.function(*(event for _ in impl.argnames))
            except (Exception, SystemExit) as error:
                # The border to foreign code: an observer cannot change what a backup does.
                logger.error("%s of plugin '%s' failed: %s: %s", hook, impl.plugin_name, type(error).__name__, error)
                logger.debug("%s of plugin '%s'", hook, impl.plugin_name, exc_info=True)


def _row(plugin: Plugin, name: str, *, kind: str = "", state: str = "ok", **more: Any) -> Row:
    return Row(
        name=name,
        kind=kind,
        plugin=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        state=state,
        **more,
    )
