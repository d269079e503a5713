"""From capacity to the twin's desired count: the template's alarms and steps, evaluated as AWS documents them."""

import itertools
import unittest

from scaling import Site, evaluate, step
from template import Resolver, load

STACK = {"Site": "north", "Cluster": "field", "RequiredSlots": 18, "SlotsPerTask": 4, "MaxCloudTasks": 5}
QUEUE = STACK | {"QueueName": "clips", "QueueTaskDefinition": "worker", "BacklogPerSlot": 10, "SlotsPerQueueTask": 4}


def series(text):
    """`18 9 -`: one word a period, `-` where nobody sent."""
    return [None if word == "-" else int(word) for word in text.split()]


class Steps(unittest.TestCase):
    def setUp(self):
        self.resources = Resolver(load(), QUEUE).resources()

    def test_missing_slots_become_tasks(self):
        alarm = self.resources["ShortageAlarm"]["Properties"]
        policy = self.resources["ShortagePolicy"]["Properties"]
        most = self.resources["TwinTarget"]["Properties"]["MaxCapacity"]
        for capacity, tasks in [(24, 0), (18, 0), (17, 1), (14, 1), (13, 2), (10, 2), (9, 3), (1, 5), (0, 5), (None, 5)]:
            missing = evaluate(alarm["Metrics"], {"c": capacity})
            found = 0 if missing < alarm["Threshold"] else min(step(policy, alarm["Threshold"], missing), most)
            self.assertEqual(found, tasks, f"{capacity} of 18 slots")

    def test_silence_is_no_capacity_at_all(self):
        alarm = Resolver(load(), STACK | {"SlotsPerTask": 1}).resources()["ShortageAlarm"]["Properties"]
        self.assertEqual(evaluate(alarm["Metrics"], {"c": None}), 18)

    def test_both_alarms_of_a_pair_watch_the_same(self):
        for one, other in [("ShortageAlarm", "WholeAlarm"), ("QueueAlarm", "NoBacklogAlarm")]:
            self.assertEqual(*(self.resources[name]["Properties"]["Metrics"] for name in (one, other)))

    def test_as_many_tasks_as_are_missing_up_to_the_last_step(self):
        for name in ("ShortagePolicy", "QueuePolicy"):
            policy = self.resources[name]["Properties"]
            for missing in range(1, 200):
                self.assertEqual(step(policy, 1, missing), min(missing, 20), name)

    def test_steps_have_no_gap_and_stay_within_the_quota(self):
        for name in ("ShortagePolicy", "QueuePolicy", "WholePolicy", "NoBacklogPolicy"):
            steps = self.resources[name]["Properties"]["StepScalingPolicyConfiguration"]["StepAdjustments"]
            self.assertLessEqual(len(steps), 20, name)
            self.assertNotIn("MetricIntervalLowerBound", steps[0], name)
            for one, next_one in itertools.pairwise(steps):
                self.assertEqual(one["MetricIntervalUpperBound"], next_one["MetricIntervalLowerBound"], name)

    def test_the_last_step_is_the_largest_number_of_tasks_allowed(self):
        parameters = load()["Parameters"]
        for parameter, name in [("MaxCloudTasks", "ShortagePolicy"), ("MaxQueueTasks", "QueuePolicy")]:
            steps = self.resources[name]["Properties"]["StepScalingPolicyConfiguration"]["StepAdjustments"]
            self.assertEqual(parameters[parameter]["MaxValue"], steps[-1]["ScalingAdjustment"])


class Twin(unittest.TestCase):
    def check(self, capacity, desired, **parameters):
        """Capacity of each period, and the desired count after it."""
        site = Site(STACK | parameters)
        found = [site.period(c=slots) for slots in series(capacity)]
        self.assertEqual(found, series(desired))

    def test_one_bad_period_is_no_outage(self):
        self.check("18 18 9 18 18 - 18 18",
                   " 0  0 0  0  0 0  0  0")

    def test_a_node_of_two_dies(self):
        # Two thirds of it with the second bad period, the rest with the third.
        self.check("18 18 9 9 9 9",
                   " 0  0 0 2 3 3")

    def test_the_site_loses_power(self):
        self.check("18 18 - - - - -",
                   " 0  0 0 3 5 5 5")

    def test_a_single_missing_task_comes_at_once(self):
        self.check("18 18 17 17 17",
                   " 0  0  0  1  1")

    def test_a_shortage_that_shrinks_is_followed_after_the_cooldown(self):
        self.check("18 - - - - - 9 9 9 9",
                   " 0 0 3 5 5 5 4 4 4 3")

    def test_back_to_zero_after_ten_minutes(self):
        self.check("18 9 9 9 9 18 18 18 18 18 18 18 18 18 18",
                   " 0 0 2 3 3  3  3  3  3  3  3  3  3  0  0")

    def test_back_to_zero_though_a_period_is_late(self):
        self.check("18 9 9 9 9 18 18 18 18  - 18 18 18 18 18",
                   " 0 0 2 3 3  3  3  3  3  3  3  3  3  3  0")

    def test_a_newest_period_that_is_always_late(self):
        for capacity, desired in [
            # Nothing is missing: one of three is bad for ever, and that is no shortage.
            ("18 18 18 18 18 18 18 18 18 18 18 18", " 0  0  0  0  0  0  0  0  0  0  0  0"),
            # One task is missing: one more than that runs, not all that may.
            ("18 18 14 14 14 14", " 0  0  0  2  2  2"),
            # And back to zero.
            ("18 14 14 18 18 18 18 18 18 18 18 18 18", " 0  0  2  2  2  2  2  2  2  2  2  2  0"),
        ]:
            site, found = Site(STACK), []
            for slots in series(capacity):
                found.append(site.period(c=None))
                site.points[-1] = {"c": slots}
            self.assertEqual(found, series(desired), capacity)

    def test_no_more_than_the_site_may(self):
        self.check("18 - - - -",
                   " 0 0 2 2 2", MaxCloudTasks=2)
        self.check("18 - - - -",
                   " 0 0 0 0 0", MaxCloudTasks=0)

    def test_shortage_and_whole_are_never_in_alarm_together(self):
        site = Site(STACK)
        for slots in itertools.product((18, None), repeat=10):
            site.points = [{"c": slot} for slot in slots]
            self.assertFalse(all(site.look(alarm)[1] for alarm in site.alarms), slots)

    def test_nor_with_fast_detection(self):
        shortage, whole = Site(STACK | {"FastDetection": "true"}).alarms
        good = whole["DatapointsToAlarm"]
        bad = whole["EvaluationPeriods"] - good
        self.assertLess(bad, shortage["DatapointsToAlarm"])

    def test_returning_takes_ten_minutes_either_way(self):
        for fast, period in (("false", 60), ("true", 10)):
            for alarm in Site(STACK | {"FastDetection": fast}).alarms:
                self.assertEqual(alarm["Metrics"][0]["MetricStat"]["Period"], period)
            self.assertEqual(alarm["EvaluationPeriods"] * period, 600)


class Queue(unittest.TestCase):
    def test_the_fewest_workers_that_bring_the_backlog_down(self):
        resources = Resolver(load(), QUEUE).resources()
        metrics = resources["QueueAlarm"]["Properties"]["Metrics"]
        for visible, capacity in itertools.product(range(0, 400, 7), range(0, 30, 3)):
            workers = max(0, evaluate(metrics, {"v": visible, "c": capacity}))
            self.assertLessEqual(visible, 10 * (capacity + 4 * workers))
            if workers:
                self.assertGreater(visible, 10 * (capacity + 4 * (workers - 1)))

    def test_a_minute_of_fast_data_is_still_slots(self):
        # Six data of 18 slots in a minute.
        metrics = Resolver(load(), QUEUE | {"FastDetection": "true"}).resources()["QueueAlarm"]["Properties"]["Metrics"]
        self.assertEqual(evaluate(metrics, {"v": 190, "c": 6 * 18}), 1)
        self.assertEqual(evaluate(metrics, {"v": 180, "c": 6 * 18}), 0)

    def test_a_site_without_power_gets_workers_for_all_of_it(self):
        site = Site(QUEUE, "Queue", "NoBacklog", "QueueTarget")
        found = [site.period(v=100, c=slots) for slots in series("18 18 - - - -")]
        self.assertEqual(found, [0, 0, 0, 1, 3, 3])

    def test_an_idle_queue_needs_nobody(self):
        site = Site(QUEUE, "Queue", "NoBacklog", "QueueTarget")
        self.assertEqual({site.period(v=None, c=None) for _ in range(20)}, {0})


if __name__ == "__main__":
    unittest.main()
