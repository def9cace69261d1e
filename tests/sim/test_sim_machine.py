"""Hypothesis looks for trouble: any order of any faults, and after each the invariants hold; a failure is shrunk."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.sim import faults
from tests.sim.faults import CALLS, Swarm
from tests.sim.run import make_spec, see_to_the_end
from tests.sim.training import Script
from tests.sim.world import World

FOREVER = 1e9


class Machine(RuleBasedStateMachine):
    """One run; what a rule does not change goes on as it was."""

    world: World

    @initialize(
        seed=st.integers(0, 2**16),
        num_nodes=st.sampled_from([4, 5, 8]),
        max_duration=st.sampled_from([30, 60]),
        cap=st.sampled_from([None, 0.3, 0.8]),
        policy=st.sampled_from(["spot", "auto", "on-demand"]),
        fewer=st.sampled_from([None, 1, 2]),
    )
    def launch(  # noqa: PLR0917 - what may differ between runs
        self, seed: int, num_nodes: int, max_duration: int, cap: float | None, policy: str, fewer: int | None
    ) -> None:
        least = None if fewer is None else num_nodes // fewer

        def spec(world: World) -> object:
            return make_spec(world, num_nodes=num_nodes, max_duration=max_duration, cap=cap, policy=policy, least=least)

        self.world = World(seed, spec, Swarm(until=FOREVER))  # type: ignore[arg-type]
        self.world.script = Script(steps=400, every=60, staging=5, setup=5, upload=8)
        self.world.start_scheduler()

    @rule(seconds=st.sampled_from([1, 5, 20, 60, 200]))
    def advance(self, seconds: int) -> None:
        self.world.run_until(self.world.clock.now + seconds)

    @rule(kind=st.sampled_from(sorted(faults.HAPPENINGS)))
    def happen(self, kind: str) -> None:
        faults.HAPPENINGS[kind](self.world)

    @rule(kind=st.sampled_from(sorted(CALLS)), share=st.sampled_from([0.0, 0.3, 1.0]))
    def weather(self, kind: str, share: float) -> None:
        self.world.swarm.rates[kind] = share * CALLS[kind]

    @rule()
    def scheduler(self) -> None:
        self.world.ensure_scheduler()

    @precondition(lambda self: self.world.state.closed)
    @rule()
    def resume(self) -> None:
        self.world.ask_resume()

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.checks.step(self.world)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            see_to_the_end(self.world)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
