"""What the rules about turns say, without a database: small enough to be seen to be right.

Time is counted in ticks. A run that waits carries the tick at which it comes due; a session's runs
are started in the order of (due, asked).
"""

from dataclasses import dataclass, field

IN_FLIGHT = ("pending", "running")


@dataclass
class Turn:
    run_id: str
    due: int
    status: str = "pending"
    attempt: int = 0
    crashes: int = 0
    cancel: str | None = None
    rest: str | None = None  # how it left the session
    mends: bool = False  # nobody vouched for the state that it was last started on

    @property
    def in_flight(self) -> bool:
        return self.status in IN_FLIGHT


@dataclass
class Book:
    """The turns of one session, in the order in which they were asked for."""

    turns: list[Turn] = field(default_factory=list[Turn])
    rest: str = "idle"  # how the last turn that ended left it
    sound: bool = True  # nothing has happened since a turn that ended well

    @property
    def flight(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.in_flight]

    @property
    def running(self) -> Turn | None:
        return next((turn for turn in self.turns if turn.status == "running"), None)

    @property
    def status(self) -> str:
        return "busy" if self.flight else self.rest

    def following(self, now: int) -> Turn | None:
        """What a worker that looks now may start."""
        waiting = [turn for turn in self.turns if turn.status == "pending" and turn.due <= now]
        if self.running or not waiting:
            return None
        return min(waiting, key=lambda turn: (turn.due, self.turns.index(turn)))

    def verdict(self, strategy: str, *, due: int, now: int, stands_by: bool, most: int) -> str:
        """What becomes of a request."""
        if strategy == "reject" and self.flight:
            return "busy"
        if len(self.flight) >= most:
            return "full"
        overtakes = self.running or any(turn.due <= now for turn in self.flight)
        return "started" if stands_by and due <= now and not overtakes else "waiting"

    def ask(self, run_id: str, strategy: str, *, due: int, started: bool) -> Turn:
        if strategy in ("interrupt", "rollback"):
            for turn in self.flight:
                self.cancel(turn, strategy)
        turn = Turn(run_id, due)
        self.turns.append(turn)
        if started:
            self.start(turn)
        return turn

    def start(self, turn: Turn) -> None:
        turn.status = "running"
        turn.attempt += 1
        turn.mends, self.sound = not self.sound, False

    def cancel(self, turn: Turn, action: str) -> None:
        """What never started is over, or was never there; anything else is asked to stop."""
        if turn.attempt == 0 and action == "rollback":
            self.turns.remove(turn)
            return
        turn.cancel = turn.cancel or action
        if turn.attempt == 0:
            turn.status = "interrupted"

    def end(self, turn: Turn, status: str, rest: str) -> None:
        turn.status, turn.rest = status, rest
        self.rest = rest
        self.sound = (status, rest) == ("success", "idle")

    def roll_back(self, turn: Turn) -> None:
        self.turns.remove(turn)

    def hand_back(self, turn: Turn, *, crashed: bool) -> None:
        turn.status = "pending"
        turn.crashes += crashed
