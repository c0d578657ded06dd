package double

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// lies are the wrong answers to a query for changed areas that a rule can ask
// for. All but the last two say too much, are broken or take too long, and a
// client can notice; the last two cost it data unless it looks for itself.
var lies = map[string]func(*window, *rules.Rule) types.DiskChangeInfo{
	// One area over the whole disk, as storage answers that keeps no map.
	"whole-disk": func(w *window, _ *rules.Rule) types.DiskChangeInfo {
		w.Areas = []store.Area{{Start: 0, Length: w.Capacity}}
		return w.tell()
	},
	// One more area across the end of the disk, and one beyond it.
	"outside": func(w *window, _ *rules.Rule) types.DiskChangeInfo {
		return with(w.tell(), w.Capacity-store.GrainBytes, 2*store.GrainBytes, w.Capacity+store.MiB, store.GrainBytes)
	},
	// Two more areas, that start before the disk and end before they start.
	"negative": func(w *window, _ *rules.Rule) types.DiskChangeInfo {
		return with(w.tell(), -store.GrainBytes, store.GrainBytes, w.start+store.GrainBytes, -store.GrainBytes)
	},
	// One more area, of no bytes.
	"empty-area": func(w *window, _ *rules.Rule) types.DiskChangeInfo { return with(w.tell(), w.start, 0) },
	// Each area twice, the second time only its later half.
	"overlapping": func(w *window, _ *rules.Rule) types.DiskChangeInfo {
		told := w.tell()
		for _, area := range told.ChangedArea {
			told = with(told, area.Start+area.Length/2, area.Length-area.Length/2)
		}
		slices.SortStableFunc(told.ChangedArea, func(a, b types.DiskChangeExtent) int { return int(a.Start - b.Start) })
		return told
	},
	// The last area first.
	"unsorted": func(w *window, _ *rules.Rule) types.DiskChangeInfo {
		told := w.tell()
		slices.Reverse(told.ChangedArea)
		return told
	},
	// A window that reaches beyond the end of the disk.
	"too-long": func(w *window, _ *rules.Rule) types.DiskChangeInfo {
		told := w.tell()
		told.Length += store.MiB
		return told
	},
	// A window that starts behind the offset that was asked for.
	"gap": func(w *window, _ *rules.Rule) types.DiskChangeInfo {
		w.start = min(w.start+store.GrainBytes, w.end)
		return w.tell()
	},
	// A window of no bytes: asking again for what comes after it never ends.
	"stuck": func(w *window, _ *rules.Rule) types.DiskChangeInfo {
		w.end = w.start
		return w.tell()
	},
	// The window at the start of the disk, whatever was asked for.
	"repeat": func(w *window, _ *rules.Rule) types.DiskChangeInfo {
		w.start, w.end = 0, w.Capacity/2
		return w.tell()
	},
	// A window of 64 KiB each time: it ends, but not soon.
	"crawl": func(w *window, _ *rules.Rule) types.DiskChangeInfo {
		w.end = min(w.start+store.GrainBytes, w.end)
		return w.tell()
	},
	// Nothing changed.
	"nothing": func(w *window, _ *rules.Rule) types.DiskChangeInfo {
		w.Areas = nil
		return w.tell()
	},
	// All that changed but one grain: the first, or the one at the rule's offset.
	"omit": func(w *window, rule *rules.Rule) types.DiskChangeInfo {
		switch {
		case rule.AtOffset != nil:
			w.without(*rule.AtOffset)
		case len(w.Areas) > 0:
			w.without(w.Areas[0].Start)
		}
		return w.tell()
	},
}

// with adds areas, each a start and a length in bytes.
func with(told types.DiskChangeInfo, pairs ...int64) types.DiskChangeInfo {
	for pair := range slices.Chunk(pairs, 2) {
		told.ChangedArea = append(told.ChangedArea, types.DiskChangeExtent{Start: pair[0], Length: pair[1]})
	}
	return told
}

// CheckRule says why a rule cannot be carried out.
func CheckRule(rule *rules.Rule) error {
	if rule.Fault != "" {
		if _, err := FaultFor(rule); err != nil {
			return err
		}
	}
	asksForChanges := strings.EqualFold(rule.Method, vslmChanges) || strings.EqualFold(rule.Method, vimChanges)
	if rule.Where == rules.Answer && !asksForChanges {
		return fmt.Errorf("only the answers to %s and %s can be made wrong", vslmChanges, vimChanges)
	}
	if _, ok := lies[rule.Lie]; rule.Lie != "" && !ok {
		return fmt.Errorf("lie is %q; it can be %v", rule.Lie, slices.Sorted(maps.Keys(lies)))
	}
	return nil
}
