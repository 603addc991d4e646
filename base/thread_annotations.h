// Clang's thread-safety attributes under short names; empty for other compilers.
// https://clang.llvm.org/docs/ThreadSafetyAnalysis.html
#ifndef RETICLE_BASE_THREAD_ANNOTATIONS_H_
#define RETICLE_BASE_THREAD_ANNOTATIONS_H_

#if defined(__clang__)
#define RETICLE_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define RETICLE_THREAD_ATTRIBUTE(x)
#endif

#define RETICLE_CAPABILITY(name) RETICLE_THREAD_ATTRIBUTE(capability(name))
#define RETICLE_SCOPED_CAPABILITY RETICLE_THREAD_ATTRIBUTE(scoped_lockable)
#define RETICLE_GUARDED_BY(mutex) RETICLE_THREAD_ATTRIBUTE(guarded_by(mutex))
#define RETICLE_PT_GUARDED_BY(mutex) RETICLE_THREAD_ATTRIBUTE(pt_guarded_by(mutex))
#define RETICLE_REQUIRES(...) RETICLE_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define RETICLE_EXCLUDES(...) RETICLE_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define RETICLE_ACQUIRE(...) RETICLE_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define RETICLE_RELEASE(...) RETICLE_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define RETICLE_NO_THREAD_SAFETY_ANALYSIS RETICLE_THREAD_ATTRIBUTE(no_thread_safety_analysis)

#endif  // RETICLE_BASE_THREAD_ANNOTATIONS_H_
