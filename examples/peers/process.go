package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is one that was started here, with those that it starts itself.
type process struct {
	cmd   *exec.Cmd
	log   *os.File
	ended chan struct{} // closed when it has ended
}

// stopTime is how long a process may take to end before it is killed.
const stopTime = 10 * time.Second

// startProcess runs a program in the folder, its output in a file there. It gets nothing of
// this process's environment that could tune it.
func startProcess(dir, name string, args []string, env ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, filepath.Base(name)+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(name, args...), log: log, ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, log, log
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	// A group of its own: an interrupt at the terminal ends this process first,
	// which then ends the others in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// stop ends the process and all that it started.
func (p *process) stop() error {
	group := -p.cmd.Process.Pid
	err := syscall.Kill(group, syscall.SIGTERM)
	if errors.Is(err, syscall.ESRCH) {
		err = nil
	}
	select {
	case <-p.ended:
	case <-time.After(stopTime):
		err = errors.Join(err, syscall.Kill(group, syscall.SIGKILL))
		<-p.ended
	}
	return errors.Join(err, p.log.Close())
}

// tail is the end of what the process wrote.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// family is the processes that are there, and all that they started, sorted.
func family(roots []*process) ([]int, error) {
	parents, err := parentsOf("/proc")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, p := range roots {
		out = append(out, p.cmd.Process.Pid)
	}
	for i := 0; i < len(out); i++ {
		for pid, parent := range parents {
			if parent == out[i] {
				out = append(out, pid)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// parentsOf is each process's parent.
func parentsOf(proc string) (map[int]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	out := map[int]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(proc, e.Name(), "stat"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		if out[pid], err = parentIn(string(text)); err != nil {
			return nil, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return out, nil
}

// parentIn reads /proc/PID/stat (proc_pid_stat(5)): the second field is the
// program's name in parentheses, which may hold any byte but NUL, so that what
// follows begins after the last one that closes.
func parentIn(stat string) (int, error) {
	_, rest, found := cutLast(stat, ")")
	fields := strings.Fields(rest)
	if !found || len(fields) < 2 {
		return 0, fmt.Errorf("its stat cannot be read: %q", stat)
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil || parent < 0 {
		return 0, fmt.Errorf("its stat names no parent: %q", stat)
	}
	return parent, nil
}

// memoryOf is the resident memory of the processes in bytes. What is mapped
// from files or shared counts once, as much as the process has that has most of
// it: the workers of one program have the same.
func memoryOf(pids []int) (int64, error) {
	var anonymous, shared int64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		own, file, err := memoryIn(string(text))
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		anonymous += own
		shared = max(shared, file)
	}
	return anonymous + shared, nil
}

// memoryIn reads /proc/PID/status (proc_pid_status(5)).
func memoryIn(status string) (anonymous, shared int64, err error) {
	found := 0
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		into := map[string]*int64{"RssAnon": &anonymous, "RssFile": &shared, "RssShmem": &shared}[name]
		if into == nil {
			continue
		}
		kilobytes, unit, _ := strings.Cut(strings.TrimSpace(value), " ")
		n, err := strconv.ParseInt(kilobytes, 10, 40)
		if err != nil || n < 0 || unit != "kB" {
			return 0, 0, fmt.Errorf("its status says %q", line)
		}
		*into += n << 10
		found++
	}
	if found != 3 {
		return 0, 0, fmt.Errorf("its status does not say what memory it has: %q", status)
	}
	return anonymous, shared, nil
}

// await asks until the answer is right, and gives how long that took. It asks
// often: the time is a result.
func await(ctx context.Context, all []*process, ask func(context.Context) error) (time.Duration, error) {
	const atMost = 20 * time.Second
	begun := time.Now()
	for {
		err := ask(ctx)
		if err == nil {
			return time.Since(begun), nil
		}
		for _, p := range all {
			select {
			case <-p.ended:
				return 0, fmt.Errorf("%s ended: %s", p.cmd.Path, p.tail())
			default:
			}
		}
		if time.Since(begun) > atMost {
			p := all[len(all)-1]
			return 0, fmt.Errorf("%s does not answer as it should after %v: %w: %s", p.cmd.Path, atMost, err, p.tail())
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}
