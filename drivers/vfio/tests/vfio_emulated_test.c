// SPDX-License-Identifier: GPL-2.0-only
/*
 * Emulated VFIO devices that do what user space tells them
 *
 * Drivers of mediated devices reach a container's memory with vfio_pin_pages(),
 * vfio_unpin_pages() and vfio_dma_rw(), and are told with ->dma_unmap() to let
 * go.  These devices do the same on behalf of tests; see vfio_emulated_test.h.
 */

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "vfio_emulated_test.h"

#define VFIO_EMULATED_TEST_MAX_DEVICES	8

static unsigned int count = 3;
module_param(count, uint, 0444);
MODULE_PARM_DESC(count, "Number of devices, 8 at most");

/**
 * struct vfio_emulated_test_page - a page that a device has pinned
 * @page: the page
 * @count: how often
 * @object: number of pages of the object that begins with it, 0 if none does
 * @is_part: it belongs to an object, and is not to be found by itself
 */
struct vfio_emulated_test_page {
	struct page *page;
	unsigned int count;
	unsigned int object;
	bool is_part;
};

/**
 * struct vfio_emulated_test - a device
 * @vdev: what VFIO knows of it
 * @lock: protects all of the below; never held over a call into VFIO, which
 *	calls ->dma_unmap() with locks held that those calls take
 * @pages: IOVA page to struct vfio_emulated_test_page
 * @state: what the ioctl STATE reads and writes
 * @work: does @background
 * @background: what is done without anybody waiting for it
 */
struct vfio_emulated_test {
	struct vfio_device vdev;
	struct mutex lock;	/* the members below */
	struct xarray pages;
	struct vfio_emulated_test_state state;
	struct work_struct work;
	struct vfio_emulated_test_background background;
};

/**
 * struct vfio_emulated_test_work - a vfio_dma_rw() in a kernel thread
 * @test: the device
 * @rw: what to do
 * @data: kernel's copy of the user's buffer
 * @ret: what vfio_dma_rw() returned
 * @done: when it has
 */
struct vfio_emulated_test_work {
	struct vfio_emulated_test *test;
	const struct vfio_emulated_test_rw *rw;
	void *data;
	int ret;
	struct completion done;
};

static struct platform_device *
vfio_emulated_test_devices[VFIO_EMULATED_TEST_MAX_DEVICES];

/* Forget one pin of a page; false if there is none. */
static bool vfio_emulated_test_forget(struct vfio_emulated_test *test,
				      unsigned long index)
{
	struct vfio_emulated_test_page *page = xa_load(&test->pages, index);

	lockdep_assert_held(&test->lock);
	if (!page)
		return false;

	test->state.pinned--;
	if (!--page->count) {
		xa_erase(&test->pages, index);
		kfree(page);
	}
	return true;
}

static int vfio_emulated_test_remember(struct vfio_emulated_test *test,
				       unsigned long index, struct page *pinned)
{
	struct vfio_emulated_test_page *page = xa_load(&test->pages, index);
	int ret;

	lockdep_assert_held(&test->lock);
	if (!page) {
		page = kzalloc_obj(*page, GFP_KERNEL);
		if (!page)
			return -ENOMEM;
		ret = xa_err(xa_store(&test->pages, index, page, GFP_KERNEL));
		if (ret) {
			kfree(page);
			return ret;
		}
		page->page = pinned;
	}
	page->count++;
	test->state.pinned++;
	return 0;
}

/* Forget all of an object, or what is left of it. */
static void vfio_emulated_test_forget_object(struct vfio_emulated_test *test,
					     unsigned long index,
					     unsigned int npages)
{
	while (npages--)
		vfio_emulated_test_forget(test, index++);
}

/*
 * Unpin all that is pinned of [@first, @last], and objects that begin there.  With
 * @parts, pages of objects are found by themselves, too.  Returns how many pins that
 * was.
 */
static unsigned long vfio_emulated_test_release(struct vfio_emulated_test *test,
						unsigned long first,
						unsigned long last, bool parts)
{
	unsigned long index = first, n = 0;
	struct vfio_emulated_test_page *page;
	unsigned int npages;

	for (;;) {
		mutex_lock(&test->lock);
		page = xa_find(&test->pages, &index, last, XA_PRESENT);
		if (!page) {
			mutex_unlock(&test->lock);
			return n;
		}
		if (page->is_part && !page->object && !parts) {
			mutex_unlock(&test->lock);
			if (index++ == last)
				return n;
			continue;
		}
		npages = parts ? 1 : max(page->object, 1);
		vfio_emulated_test_forget_object(test, index, npages);
		mutex_unlock(&test->lock);
		vfio_unpin_pages(&test->vdev, (dma_addr_t)index << PAGE_SHIFT,
				 npages);
		n += npages;
	}
}

/* The pages that were pinned last are an object.  All of them are pinned once. */
static void vfio_emulated_test_make_object(struct vfio_emulated_test *test,
					   unsigned long first,
					   unsigned int npages)
{
	struct vfio_emulated_test_page *page;
	unsigned int i;

	lockdep_assert_held(&test->lock);
	for (i = 0; i < npages; i++) {
		page = xa_load(&test->pages, first + i);
		page->is_part = true;
		page->object = i ? 0 : npages;
	}
}

/* Setting another delay ends one that is under way. */
static void vfio_emulated_test_delay(struct vfio_emulated_test *test,
				     unsigned int delay_ms)
{
	unsigned long end = jiffies + msecs_to_jiffies(delay_ms);

	while (time_before(jiffies, end) &&
	       READ_ONCE(test->state.delay_ms) == delay_ms)
		usleep_range(1000, 2000);
}

static void vfio_emulated_test_dma_unmap(struct vfio_device *vdev, u64 iova,
					 u64 size)
{
	struct vfio_emulated_test *test =
		container_of(vdev, struct vfio_emulated_test, vdev);
	unsigned int delay_ms;
	bool ignore;

	mutex_lock(&test->lock);
	test->state.notified++;
	test->state.iova = iova;
	test->state.size = size;
	delay_ms = test->state.delay_ms;
	ignore = test->state.ignore;
	if (ignore && test->state.ignore != U32_MAX)
		test->state.ignore--;
	mutex_unlock(&test->lock);

	vfio_emulated_test_delay(test, delay_ms);
	if (ignore)
		return;
	/* What a call has pinned just now, it must have time to remember. */
	if (!vfio_emulated_test_release(test, iova >> PAGE_SHIFT,
					(iova + size - 1) >> PAGE_SHIFT, false))
		usleep_range(1000, 2000);
}

static long vfio_emulated_test_pin(struct vfio_emulated_test *test,
				   const struct vfio_emulated_test_pin *pin)
{
	struct page **pages;
	u64 *pfns;
	int i, ret, err = 0;

	if (pin->npages > VFIO_EMULATED_TEST_MAX_PIN)
		return -EINVAL;
	pages = kvcalloc(VFIO_EMULATED_TEST_MAX_PIN, sizeof(*pages), GFP_KERNEL);
	pfns = kvcalloc(VFIO_EMULATED_TEST_MAX_PIN, sizeof(*pfns), GFP_KERNEL);
	ret = -ENOMEM;
	if (!pages || !pfns)
		goto out_free;

	ret = vfio_pin_pages(&test->vdev, pin->iova, pin->npages, pin->prot,
			     pages);
	if (ret <= 0)
		goto out_free;

	mutex_lock(&test->lock);
	for (i = 0; i < ret && !err; i++) {
		pfns[i] = page_to_pfn(pages[i]);
		err = vfio_emulated_test_remember(test,
						  (pin->iova >> PAGE_SHIFT) + i,
						  pages[i]);
	}
	/* The last one is not remembered, nor are those behind it. */
	for (i -= 2; err && i >= 0; i--)
		vfio_emulated_test_forget(test, (pin->iova >> PAGE_SHIFT) + i);
	if (!err && test->state.objects)
		vfio_emulated_test_make_object(test, pin->iova >> PAGE_SHIFT,
					       ret);
	mutex_unlock(&test->lock);
	if (err) {
		vfio_unpin_pages(&test->vdev, pin->iova, ret);
		ret = err;
		goto out_free;
	}

	if (pin->pfns && copy_to_user(u64_to_user_ptr(pin->pfns), pfns,
				      ret * sizeof(*pfns)))
		ret = -EFAULT;
out_free:
	kvfree(pages);
	kvfree(pfns);
	return ret;
}

static long vfio_emulated_test_unpin(struct vfio_emulated_test *test,
				     const struct vfio_emulated_test_pin *pin)
{
	unsigned int i;

	mutex_lock(&test->lock);
	for (i = 0; i < pin->npages; i++)
		vfio_emulated_test_forget(test, (pin->iova >> PAGE_SHIFT) + i);
	mutex_unlock(&test->lock);
	vfio_unpin_pages(&test->vdev, pin->iova, pin->npages);
	return 0;
}

static int vfio_emulated_test_thread(void *data)
{
	struct vfio_emulated_test_work *work = data;

	work->ret = vfio_dma_rw(&work->test->vdev, work->rw->iova, work->data,
				work->rw->size,
				work->rw->flags & VFIO_EMULATED_TEST_RW_WRITE);
	complete(&work->done);
	return 0;
}

static int vfio_emulated_test_dma_rw(struct vfio_emulated_test *test,
				     const struct vfio_emulated_test_rw *rw,
				     void *data)
{
	struct vfio_emulated_test_work work = {
		.test = test,
		.rw = rw,
		.data = data,
	};
	struct task_struct *thread;

	init_completion(&work.done);
	if (!(rw->flags & VFIO_EMULATED_TEST_RW_KTHREAD)) {
		vfio_emulated_test_thread(&work);
		return work.ret;
	}

	thread = kthread_run(vfio_emulated_test_thread, &work,
			     VFIO_EMULATED_TEST_NAME);
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	wait_for_completion(&work.done);
	return work.ret;
}

static void vfio_emulated_test_background(struct work_struct *work)
{
	struct vfio_emulated_test *test =
		container_of(work, struct vfio_emulated_test, work);
	const struct vfio_emulated_test_pin pin = {
		.iova = test->background.iova,
		.npages = test->background.npages,
		.prot = IOMMU_READ | IOMMU_WRITE,
	};
	int ret;
	u64 data;

	if (test->background.cmd == VFIO_EMULATED_TEST_PIN)
		ret = vfio_emulated_test_pin(test, &pin);
	else
		ret = vfio_dma_rw(&test->vdev, pin.iova, &data, sizeof(data),
				  false);

	mutex_lock(&test->lock);
	test->state.result = ret;
	mutex_unlock(&test->lock);
}

static long vfio_emulated_test_begin(struct vfio_emulated_test *test,
				     void __user *arg)
{
	struct vfio_emulated_test_background background;
	long ret = -EBUSY;

	if (copy_from_user(&background, arg, sizeof(background)))
		return -EFAULT;
	mutex_lock(&test->lock);
	if (test->state.result != -EINPROGRESS) {
		test->background = background;
		test->state.result = -EINPROGRESS;
		queue_work(system_long_wq, &test->work);
		ret = 0;
	}
	mutex_unlock(&test->lock);
	return ret;
}

static int vfio_emulated_test_access(struct vfio_emulated_test *test,
				     const struct vfio_emulated_test_rw *rw,
				     void *data)
{
	struct vfio_emulated_test_page *page;
	u64 iova = rw->iova;
	size_t left, n;
	int ret = 0;

	mutex_lock(&test->lock);
	for (left = rw->size; left; left -= n) {
		n = min_t(size_t, left, PAGE_SIZE - offset_in_page(iova));
		page = xa_load(&test->pages, iova >> PAGE_SHIFT);
		if (!page) {
			ret = -ENOENT;
			break;
		}
		if (rw->flags & VFIO_EMULATED_TEST_RW_WRITE)
			memcpy_to_page(page->page, offset_in_page(iova), data,
				       n);
		else
			memcpy_from_page(data, page->page,
					 offset_in_page(iova), n);
		iova += n;
		data += n;
	}
	mutex_unlock(&test->lock);
	return ret;
}

static long vfio_emulated_test_rw(struct vfio_emulated_test *test,
				  const struct vfio_emulated_test_rw *rw,
				  bool pinned)
{
	bool write = rw->flags & VFIO_EMULATED_TEST_RW_WRITE;
	void *data;
	int ret;

	if (rw->size > VFIO_EMULATED_TEST_MAX_RW)
		return -EINVAL;
	/* One byte more, so that an empty buffer is one nevertheless. */
	data = kvzalloc(rw->size + 1, GFP_KERNEL);
	if (!data)
		return -ENOMEM;

	ret = -EFAULT;
	if (write && copy_from_user(data, u64_to_user_ptr(rw->data), rw->size))
		goto out_free;
	ret = pinned ? vfio_emulated_test_access(test, rw, data) :
		       vfio_emulated_test_dma_rw(test, rw, data);
	if (!ret && !write &&
	    copy_to_user(u64_to_user_ptr(rw->data), data, rw->size))
		ret = -EFAULT;
out_free:
	kvfree(data);
	return ret;
}

static long vfio_emulated_test_state(struct vfio_emulated_test *test,
				     void __user *arg)
{
	struct vfio_emulated_test_state state;

	if (copy_from_user(&state, arg, sizeof(state)))
		return -EFAULT;

	mutex_lock(&test->lock);
	if (state.set) {
		test->state.ignore = state.ignore;
		WRITE_ONCE(test->state.delay_ms, state.delay_ms);
		test->state.objects = state.objects;
	}
	state = test->state;
	mutex_unlock(&test->lock);
	return copy_to_user(arg, &state, sizeof(state)) ? -EFAULT : 0;
}

static dma_addr_t
vfio_emulated_test_time_iova(const struct vfio_emulated_test_time *time, u32 i)
{
	return time->iova + ((u64)i * time->step % time->npages << PAGE_SHIFT);
}

static int vfio_emulated_test_time_pins(struct vfio_device *vdev,
					struct vfio_emulated_test_time *time)
{
	struct page *page;
	int ret = 1;
	u64 start;
	u32 i, n;

	start = ktime_get_ns();
	for (n = 0; n < time->npages; n++) {
		ret = vfio_pin_pages(vdev, vfio_emulated_test_time_iova(time, n),
				     1, IOMMU_READ | IOMMU_WRITE, &page);
		if (ret != 1)
			break;
	}
	time->pin_ns = ktime_get_ns() - start;

	start = ktime_get_ns();
	for (i = 0; i < n; i++)
		vfio_unpin_pages(vdev, vfio_emulated_test_time_iova(time, i), 1);
	time->unpin_ns = ktime_get_ns() - start;
	return min(ret, 0);
}

static int vfio_emulated_test_time_rw(struct vfio_device *vdev,
				      struct vfio_emulated_test_time *time,
				      bool write, u64 *ns)
{
	u8 data[VFIO_EMULATED_TEST_MAX_TIME] = {};
	u64 start = ktime_get_ns();
	int ret = 0;
	u32 i;

	for (i = 0; i < time->npages && !ret; i++)
		ret = vfio_dma_rw(vdev, vfio_emulated_test_time_iova(time, i),
				  data, time->size, write);
	*ns = ktime_get_ns() - start;
	return ret;
}

static long vfio_emulated_test_time(struct vfio_device *vdev, void __user *arg)
{
	struct vfio_emulated_test_time time;
	int ret;

	if (copy_from_user(&time, arg, sizeof(time)))
		return -EFAULT;
	if (!time.npages || time.size > VFIO_EMULATED_TEST_MAX_TIME)
		return -EINVAL;

	ret = vfio_emulated_test_time_pins(vdev, &time);
	if (!ret)
		ret = vfio_emulated_test_time_rw(vdev, &time, false, &time.read_ns);
	if (!ret)
		ret = vfio_emulated_test_time_rw(vdev, &time, true, &time.write_ns);
	if (!ret && copy_to_user(arg, &time, sizeof(time)))
		ret = -EFAULT;
	return ret;
}

static long vfio_emulated_test_ioctl(struct vfio_device *vdev,
				     unsigned int cmd, unsigned long arg)
{
	struct vfio_emulated_test *test =
		container_of(vdev, struct vfio_emulated_test, vdev);
	void __user *user = (void __user *)arg;
	struct vfio_emulated_test_pin pin;
	struct vfio_emulated_test_rw rw;

	switch (cmd) {
	case VFIO_EMULATED_TEST_PIN:
	case VFIO_EMULATED_TEST_UNPIN:
		if (copy_from_user(&pin, user, sizeof(pin)))
			return -EFAULT;
		return cmd == VFIO_EMULATED_TEST_PIN ?
		       vfio_emulated_test_pin(test, &pin) :
		       vfio_emulated_test_unpin(test, &pin);
	case VFIO_EMULATED_TEST_RW:
	case VFIO_EMULATED_TEST_ACCESS:
		if (copy_from_user(&rw, user, sizeof(rw)))
			return -EFAULT;
		return vfio_emulated_test_rw(test, &rw,
					     cmd == VFIO_EMULATED_TEST_ACCESS);
	case VFIO_EMULATED_TEST_STATE:
		return vfio_emulated_test_state(test, user);
	case VFIO_EMULATED_TEST_TIME:
		return vfio_emulated_test_time(vdev, user);
	case VFIO_EMULATED_TEST_BACKGROUND:
		return vfio_emulated_test_begin(test, user);
	default:
		return -ENOTTY;
	}
}

static int vfio_emulated_test_open(struct vfio_device *vdev)
{
	struct vfio_emulated_test *test =
		container_of(vdev, struct vfio_emulated_test, vdev);

	memset(&test->state, 0, sizeof(test->state));
	return 0;
}

static void vfio_emulated_test_close(struct vfio_device *vdev)
{
	struct vfio_emulated_test *test =
		container_of(vdev, struct vfio_emulated_test, vdev);

	flush_work(&test->work);
	vfio_emulated_test_release(test, 0, ULONG_MAX, true);
}

static int vfio_emulated_test_init_dev(struct vfio_device *vdev)
{
	struct vfio_emulated_test *test =
		container_of(vdev, struct vfio_emulated_test, vdev);

	mutex_init(&test->lock);
	xa_init(&test->pages);
	INIT_WORK(&test->work, vfio_emulated_test_background);
	return 0;
}

static void vfio_emulated_test_release_dev(struct vfio_device *vdev)
{
	struct vfio_emulated_test *test =
		container_of(vdev, struct vfio_emulated_test, vdev);

	WARN_ON(!xa_empty(&test->pages));
	mutex_destroy(&test->lock);
}

static const struct vfio_device_ops vfio_emulated_test_ops = {
	.name		= "vfio-emulated-test",
	.init		= vfio_emulated_test_init_dev,
	.release	= vfio_emulated_test_release_dev,
	.open_device	= vfio_emulated_test_open,
	.close_device	= vfio_emulated_test_close,
	.ioctl		= vfio_emulated_test_ioctl,
	.dma_unmap	= vfio_emulated_test_dma_unmap,
	.bind_iommufd	= vfio_iommufd_emulated_bind,
	.unbind_iommufd	= vfio_iommufd_emulated_unbind,
	.attach_ioas	= vfio_iommufd_emulated_attach_ioas,
	.detach_ioas	= vfio_iommufd_emulated_detach_ioas,
};

static int vfio_emulated_test_probe(struct platform_device *pdev)
{
	struct vfio_emulated_test *test;
	int ret;

	test = vfio_alloc_device(vfio_emulated_test, vdev, &pdev->dev,
				 &vfio_emulated_test_ops);
	if (IS_ERR(test))
		return PTR_ERR(test);

	ret = vfio_register_emulated_iommu_dev(&test->vdev);
	if (ret)
		vfio_put_device(&test->vdev);
	else
		platform_set_drvdata(pdev, test);
	return ret;
}

static void vfio_emulated_test_remove(struct platform_device *pdev)
{
	struct vfio_emulated_test *test = platform_get_drvdata(pdev);

	vfio_unregister_group_dev(&test->vdev);
	vfio_put_device(&test->vdev);
}

static struct platform_driver vfio_emulated_test_driver = {
	.probe	= vfio_emulated_test_probe,
	.remove	= vfio_emulated_test_remove,
	.driver	= {
		.name = VFIO_EMULATED_TEST_NAME,
	},
};

static void vfio_emulated_test_remove_all(void)
{
	unsigned int i;

	for (i = 0; i < VFIO_EMULATED_TEST_MAX_DEVICES; i++)
		platform_device_unregister(vfio_emulated_test_devices[i]);
	platform_driver_unregister(&vfio_emulated_test_driver);
}

static int __init vfio_emulated_test_init(void)
{
	struct platform_device *pdev;
	unsigned int i;
	int ret;

	if (count > VFIO_EMULATED_TEST_MAX_DEVICES)
		return -EINVAL;
	ret = platform_driver_register(&vfio_emulated_test_driver);
	if (ret)
		return ret;

	for (i = 0; i < count; i++) {
		pdev = platform_device_register_simple(VFIO_EMULATED_TEST_NAME,
						       i, NULL, 0);
		if (IS_ERR(pdev)) {
			vfio_emulated_test_remove_all();
			return PTR_ERR(pdev);
		}
		vfio_emulated_test_devices[i] = pdev;
	}
	return 0;
}
module_init(vfio_emulated_test_init);

static void __exit vfio_emulated_test_exit(void)
{
	vfio_emulated_test_remove_all();
}
module_exit(vfio_emulated_test_exit);

MODULE_DESCRIPTION("Emulated VFIO devices for tests");
MODULE_LICENSE("GPL");
