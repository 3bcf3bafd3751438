"""What is asked of both servers: every public coroutine of these modules is one scenario."""
