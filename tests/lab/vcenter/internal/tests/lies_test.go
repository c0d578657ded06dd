package tests

import (
	"slices"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
)

// Each way in which a server can answer wrongly, so that a client can be shown
// to notice it, or to lose nothing by it.
func TestAnswersLieAsTheyAreTold(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	const capacity = 4 * mib
	disk := c.trackedVolume("pvc-shop", 4)
	path := lab.disk(disk).Path
	base := c.changeIDOf(disk, c.snapshot(disk, "base"))
	lab.write(path, mib, 'a', 2*grain)
	lab.write(path, 3*mib, 'b', grain)
	snapshot := c.snapshot(disk, "target")

	first, second := types.DiskChangeExtent{Start: mib, Length: 2 * grain}, types.DiskChangeExtent{Start: 3 * mib, Length: grain}
	whole := types.DiskChangeExtent{Start: 0, Length: capacity}
	place := int64(mib + grain)
	told := func(start, length int64, areas ...types.DiskChangeExtent) types.DiskChangeInfo {
		return types.DiskChangeInfo{StartOffset: start, Length: length, ChangedArea: areas}
	}
	cases := []struct {
		rule rules.Rule
		from int64
		want types.DiskChangeInfo
	}{
		{rules.Rule{Areas: 1}, 0, told(0, mib+2*grain, first)},
		{rules.Rule{Lie: "whole-disk"}, 0, told(0, capacity, whole)},
		{rules.Rule{Lie: "outside"}, 0, told(0, capacity, first, second,
			types.DiskChangeExtent{Start: capacity - grain, Length: 2 * grain}, types.DiskChangeExtent{Start: capacity + mib, Length: grain})},
		{rules.Rule{Lie: "negative"}, 0, told(0, capacity, first, second,
			types.DiskChangeExtent{Start: -grain, Length: grain}, types.DiskChangeExtent{Start: grain, Length: -grain})},
		{rules.Rule{Lie: "empty-area"}, mib, told(mib, 3*mib, first, second, types.DiskChangeExtent{Start: mib})},
		{rules.Rule{Lie: "overlapping"}, 0, told(0, capacity,
			first, types.DiskChangeExtent{Start: mib + grain, Length: grain}, second, types.DiskChangeExtent{Start: 3*mib + grain/2, Length: grain / 2})},
		{rules.Rule{Lie: "unsorted"}, 0, told(0, capacity, second, first)},
		{rules.Rule{Lie: "too-long"}, 2 * mib, told(2*mib, 3*mib, second)},
		{rules.Rule{Lie: "gap"}, mib, told(mib+grain, 3*mib-grain, types.DiskChangeExtent{Start: mib + grain, Length: grain}, second)},
		{rules.Rule{Lie: "stuck"}, mib, told(mib, 0)},
		{rules.Rule{Lie: "repeat"}, 2 * mib, told(0, 2*mib, first)},
		{rules.Rule{Lie: "crawl"}, mib, told(mib, grain, types.DiskChangeExtent{Start: mib, Length: grain})},
		{rules.Rule{Lie: "nothing"}, 0, told(0, capacity)},
		{rules.Rule{Lie: "omit"}, 0, told(0, capacity, types.DiskChangeExtent{Start: mib + grain, Length: grain}, second)},
		{rules.Rule{Lie: "omit", AtOffset: &place}, 0, told(0, capacity, types.DiskChangeExtent{Start: mib, Length: grain}, second)},
		{rules.Rule{Lie: "omit", Areas: 1}, 0, told(0, mib+2*grain, types.DiskChangeExtent{Start: mib + grain, Length: grain})},
		{rules.Rule{DelayMs: 1}, 0, told(0, capacity, first, second)},
	}
	for _, test := range cases {
		test.rule.Method, test.rule.Disk, test.rule.Where, test.rule.Count = query, disk, rules.Answer, 1
		lab.fault(test.rule)
		got, err := c.changes(disk, snapshot, test.from, base)
		must(t, err)
		if got.StartOffset != test.want.StartOffset || got.Length != test.want.Length || !slices.Equal(got.ChangedArea, test.want.ChangedArea) {
			t.Errorf("%s: %+v, wanted %+v", test.rule.Lie, *got, test.want)
		}
	}
	if got := c.allChanges(disk, snapshot, base); !slices.Equal(got, []types.DiskChangeExtent{first, second}) {
		t.Errorf("when all lies are told: %v", got)
	}
}

func TestLiesAreAboutOneDiskOnly(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	honest, lying := c.trackedVolume("honest", 1), c.trackedVolume("lying", 1)
	lab.fault(rules.Rule{Method: query, Disk: lying, Where: rules.Answer, Lie: "whole-disk", Skip: 1})
	snapshot := map[string]string{honest: c.snapshot(honest, ""), lying: c.snapshot(lying, "")}
	for _, test := range []struct {
		disk string
		want int
	}{{lying, 0}, {honest, 0}, {lying, 1}, {honest, 0}, {lying, 1}} {
		if got := c.allChanges(test.disk, snapshot[test.disk], allocated); len(got) != test.want {
			t.Errorf("areas %v, wanted %d", got, test.want)
		}
	}
}

func TestQueriesFailWithTheFaultAndAsOftenAsTold(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.trackedVolume("pvc-shop", 1)
	snapshot := c.snapshot(disk, "")
	lab.fault(rules.Rule{Method: query, Disk: disk, Fault: "FileFault", Count: 2,
		Fields: []byte(`{"file":"a-ctk.vmdk","faultMessage":[{"key":"vim.hostd.vmsvc.cbt.noEpoch"}]}`)})
	lab.fault(rules.Rule{Method: query, Disk: disk, Fault: "SystemError", DelayMs: 50, Count: 1})
	for range 2 {
		if _, err := c.changes(disk, snapshot, 0, allocated); trackingKey(err) != "noEpoch" {
			t.Errorf("the query says %v", err)
		}
	}
	began := time.Now()
	if _, err := c.changes(disk, snapshot, 0, allocated); !isSOAPFault[types.SystemError](err) || time.Since(began) < 50*time.Millisecond {
		t.Errorf("the query says %v", err)
	}
	if _, err := c.changes(disk, snapshot, 0, allocated); err != nil {
		t.Error(err)
	}
}

func TestMisspeltLiesAreRefused(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	for _, body := range []map[string]any{
		{"method": query, "where": "answer"},
		{"method": query, "where": "answer", "lie": "white"},
		{"method": query, "where": "answer", "lie": "omit", "fault": "SystemError"},
		{"method": query, "lie": "omit"},
		{"method": query, "areas": 5},
		{"method": query, "where": "answer", "areas": -1},
		{"method": "*", "where": "answer", "lie": "omit"},
		{"method": "VslmCreateSnapshot_Task", "where": "answer", "delayMs": 5},
	} {
		if status, _ := lab.ask("POST", "/faults", body); status != 400 {
			t.Errorf("%v: status %d", body, status)
		}
	}
}
