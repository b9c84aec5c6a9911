// A few threads that run one function together. Between steps they spin for a moment, then sleep in the kernel.
#pragma once
#include <atomic>
#include <chrono>
#include <climits>
#include <memory>
#include <mutex>
#include <thread>
#include <pthread.h>
#include <sched.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sage {

static inline void breathe() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// Waits in steps that cost ever less: spinning, giving the core away, asleep.
class Patience {
  public:
    void wait() {
        if (++turns_ < 4096) return breathe();  // about 100 us
        if (turns_ < 4160) {
            sched_yield();
            return;
        }
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    }

  private:
    int turns_ = 0;
};

// A number that threads wait on until it changes: they spin for a moment, then sleep until they are woken.
class Signal {
  public:
    uint32_t value() const { return value_.load(std::memory_order_acquire); }

    void advance() {
        value_.fetch_add(1);
        if (sleepers_.load() != 0) wake();
    }

    void await_change(uint32_t seen) {
        for (int turn = 0; turn < 6000; turn++) {
            if (value() != seen) return;
            breathe();
        }
        sleepers_.fetch_add(1);
        while (value_.load() == seen) sleep(seen);
        sleepers_.fetch_sub(1);
    }

  private:
#if defined(__linux__)
    void sleep(uint32_t seen) { syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0); }
    void wake() { syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }
#else
    void sleep(uint32_t) { std::this_thread::sleep_for(std::chrono::microseconds(50)); }
    void wake() {}
#endif
    alignas(64) std::atomic<uint32_t> value_{0};
    alignas(64) std::atomic<int> sleepers_{0};
};

// One stage of a run: its work is claimed in pieces, and it is over when all of them are finished.
struct Stage {
    alignas(64) std::atomic<long> claimed{0};
    alignas(64) std::atomic<long> finished{0};
};

// One thread's place in a run. Every thread goes through the same stages in the same order; who comes late finds the
// early ones finished. So nobody waits for a thread that has not come, only for work that somebody holds.
class Team {
  public:
    Team(int size, Stage* stages) : size(size), stage_(stages) {}
    const int size;

    // Calls `work(first, last)` for pieces of 0..count until none is left; returns when all are finished. What any
    // thread wrote in it is visible to all after.
    template <class Work> void share(long count, long piece, Work&& work) {
        if (size == 1) {
            if (count > 0) work(0, count);
            return;
        }
        Stage& stage = *stage_++;
        while (stage.claimed.load(std::memory_order_relaxed) < count) {
            const long first = stage.claimed.fetch_add(piece, std::memory_order_relaxed);
            if (first >= count) break;
            const long last = first + piece < count ? first + piece : count;
            work(first, last);
            stage.finished.fetch_add(last - first, std::memory_order_acq_rel);
        }
        for (Patience patience; stage.finished.load(std::memory_order_acquire) < count;) patience.wait();
    }

  private:
    Stage* stage_;
};

// One pool a process. A second engine that computes at the same moment does so on its own thread alone.
class Pool {
  public:
    static Pool& the() {
        static Pool* pool = make();
        return *pool;
    }

    // Runs `body(team)` here and on helpers; it shares work at most `stages` times.
    template <class Body> void run(int threads, long stages, Body&& body) {
        std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
        if (threads <= 1 || !mine.owns_lock()) {
            Team alone(1, nullptr);
            body(alone);
            return;
        }
        prepare(threads - 1, stages);
        size_ = threads;
        context_ = &body;
        call_ = [](void* context, Team& team) { (*static_cast<Body*>(context))(team); };
        inside_.store(0);
        start_.advance();
        Team team(threads, stages_.get());
        body(team);
        inside_.fetch_or(CLOSED);
        for (Patience patience; inside_.load(std::memory_order_acquire) != CLOSED;) patience.wait();
    }

  private:
    static constexpr uint32_t CLOSED = 0x80000000u;

    static Pool* make() {
        pthread_atfork(nullptr, nullptr, [] { new (&the()) Pool(); });  // a forked child has none of the threads
        return new Pool();
    }

    void prepare(int helpers, long stages) {
        if (stages > room_) {
            stages_.reset(new Stage[stages]);
            room_ = stages;
        } else {
            for (long i = 0; i < used_; i++) stages_[i].claimed.store(0), stages_[i].finished.store(0);
        }
        used_ = stages;
        for (; count_ < helpers; count_++) {
            const uint32_t seen = start_.value();
            std::thread([this, id = count_ + 1, seen] { serve(id, seen); }).detach();
        }
    }

    void serve(int id, uint32_t seen) {
        for (;;) {
            start_.await_change(seen);
            seen = start_.value();
            if (!enter()) continue;
            if (id < size_) {
                Team team(size_, stages_.get());
                call_(context_, team);
            }
            inside_.fetch_sub(1, std::memory_order_acq_rel);
        }
    }

    // A run that is over is closed: who comes too late must not touch it.
    bool enter() {
        uint32_t now = inside_.load(std::memory_order_acquire);
        while (!(now & CLOSED))
            if (inside_.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) return true;
        return false;
    }

    std::mutex busy_;
    int count_ = 0, size_ = 0;
    long room_ = 0, used_ = 0;
    std::unique_ptr<Stage[]> stages_;
    void* context_ = nullptr;
    void (*call_)(void*, Team&) = nullptr;
    std::atomic<uint32_t> inside_{CLOSED};
    Signal start_;
};

}  // namespace sage
