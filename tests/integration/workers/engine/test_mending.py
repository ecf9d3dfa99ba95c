"""What is mended of vLLM, against the class that it ships."""

import time

import zmq

from workers.engine import launch, mending


def test_who_waits_for_the_model_on_a_cpu_sleeps_at_once() -> None:
    launch.load_vllm()
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

    kept = SpinCondition.wait
    context = zmq.Context()
    address = "inproc://waiting"
    try:
        mending.wait_without_spinning()
        writer = SpinCondition(False, context, address)
        reader = SpinCondition(True, context, address)
        spent, began = time.process_time(), time.monotonic()
        while time.monotonic() < began + 0.5:
            reader.wait()  # returns soon, also when nothing came
        assert time.process_time() - spent < 0.25, "it spun"
        time.sleep(0.05)  # a subscription takes a moment
        writer.notify()
        assert reader.poller.poll(timeout=20_000), "a notification wakes it"
        reader.wait()
        assert not reader.poller.poll(timeout=50), "and is taken"
        for condition in (reader, writer):
            for socket in (condition.local_notify_socket, condition.read_cancel_socket, condition.write_cancel_socket):
                if socket is not None:
                    socket.close(linger=0)
    finally:
        SpinCondition.wait = kept
        context.term()
